//! What ghostd counts, for `bpctl metrics`.

/// The feature of a ghostd that answers [`MetricsRequest`].
pub const FEATURE: &str = "metrics";

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct MetricsRequest {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MetricsReply {
    /// In Prometheus' text format, version 0.0.4.
    #[prost(string, tag = "1")]
    pub text: String,
}
