"""The fact tables, the files built from them and the script that builds them."""
