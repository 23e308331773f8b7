//! Requests from a proxy to the backend of another node, and their outcomes.
