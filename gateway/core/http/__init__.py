"""HTTP APIs of this gateway's own: typed routes, and the OpenAPI document that they give. Pure."""
