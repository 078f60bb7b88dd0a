"""Settings of DeepSpeed that decide speed only, one file per strategy."""
