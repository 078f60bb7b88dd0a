"""Settings of DeepSpeed that only decide speed, one file per strategy."""
