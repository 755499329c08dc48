//! The orchestrator: store, sessions, scheduler loop, artifacts, HTTP API.
