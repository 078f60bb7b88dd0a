"""A finished run as files that other programs run: timm's weights, ONNX, torch.export, and a model card."""
