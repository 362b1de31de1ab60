"""What the gateway costs, measured against a forwarder that does nothing else. Not part of the product."""
