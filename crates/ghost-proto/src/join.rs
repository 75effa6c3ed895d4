//! How a new node gets its certificate: one exchange over TLS, before the node has a certificate of its own.
//!
//! The node knows the master by the CA fingerprint in the token; the master knows the node by the token's secret. The
//! node's private key never leaves it: it sends a certificate signing request.

use bytes::Bytes;

use crate::control::direction;

direction!(JoinToMasterEnvelope, JoinToMaster, "JoinToMaster", "1");
direction!(JoinToNodeEnvelope, JoinToNode, "JoinToNode", "1, 2");

/// What a machine without a certificate may say.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum JoinToMaster {
    #[prost(message, tag = "1")]
    Request(JoinRequest),
}

/// What it is answered.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum JoinToNode {
    #[prost(message, tag = "1")]
    Accepted(JoinAccepted),
    #[prost(message, tag = "2")]
    Refused(JoinRefused),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JoinRequest {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The token's identifier and secret.
    #[prost(bytes = "bytes", tag = "2")]
    pub token_id: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub token_secret: Bytes,
    /// The number that the node asks for; absent: by the master's rules, or the next free one.
    #[prost(sint32, optional, tag = "4")]
    pub node: Option<i32>,
    #[prost(string, tag = "5")]
    pub hostname: String,
    /// Certificate signing request, DER.
    #[prost(bytes = "bytes", tag = "6")]
    pub request: Bytes,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JoinAccepted {
    #[prost(sint32, tag = "1")]
    pub node: i32,
    /// The node's certificate and the CA's, DER.
    #[prost(bytes = "bytes", tag = "2")]
    pub certificate: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub ca: Bytes,
    #[prost(string, tag = "4")]
    pub cluster: String,
}

/// The reason, for the person who runs `nodeagent join`. It tells no more than that person must know.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JoinRefused {
    #[prost(string, tag = "1")]
    pub text: String,
}
