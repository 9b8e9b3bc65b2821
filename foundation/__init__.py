"""The ground that every storey stands on: errors and safe files. It imports none of them."""
