"""Networks with one interface: net(z [B, C, H, W], label [B] in 0..1000, text) -> [B, C, H, W]."""
