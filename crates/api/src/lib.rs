//! HTTP JSON types shared by host and cli. No IO.
