"""The tools this project is built, checked and shown with."""
