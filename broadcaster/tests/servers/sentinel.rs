//! A master, a replica and three Sentinels.
