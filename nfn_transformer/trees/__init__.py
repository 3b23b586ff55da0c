"""Tree models: XGBoost, LightGBM and extremely randomised trees behind one interface."""
