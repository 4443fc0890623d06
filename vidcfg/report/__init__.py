"""Result sets read from files, and the page that shows them. No torch, no model."""
