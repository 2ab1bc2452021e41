"""How answers are shown: tables for people, stable documents for programs."""
