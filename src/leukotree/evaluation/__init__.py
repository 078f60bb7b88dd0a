"""From log p(child | parent) to leaves and scores: decision rules, metrics, calibration."""
