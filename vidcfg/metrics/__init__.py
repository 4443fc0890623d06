"""What is measured on videos, as records that say how they were made."""
