"""The longer texts of the report, by subject. `blocks.text` fills in their values and joins their lines."""
