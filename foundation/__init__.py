"""What all other packages use: errors, files, databases, text. It imports none of them."""
