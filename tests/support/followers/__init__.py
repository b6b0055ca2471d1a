"""Programs whose workers outlive runs: what starts them, what they do, and what their parent does."""
