//! Nouns: ids, digests, the pipeline document and its checked types. No IO.
