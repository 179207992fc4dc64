"""Running ``lit-gen run`` as a child, and sharing work among processes that may be killed at any moment."""
