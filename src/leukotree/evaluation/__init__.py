"""Decision rules, metrics and calibration: from log p(child | parent) to leaves and scores."""
