//! Control messages: one enum per direction, wrapped so that an unknown variant decodes to `None` and is skipped.

use bytes::{Bytes, BytesMut};
use prost::Message;

/// A direction of the protocol: what one kind of peer may say to another.
pub trait Control: Sized {
    /// Appends the message as a complete frame.
    fn encode_frame(self, out: &mut BytesMut);

    /// Decodes the body of a control frame. `Ok(None)`: a message that this version does not know, to be skipped.
    ///
    /// # Errors
    /// The bytes are not a message of any version.
    fn decode_body(body: Bytes) -> Result<Option<Self>, prost::DecodeError>;

    /// The message as a complete frame of its own.
    fn to_frame(self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode_frame(&mut out);
        out.freeze()
    }
}

/// Writes a Protocol Buffers message as a frame.
pub(crate) fn encode_message(message: &impl Message, kind: u8, out: &mut BytesMut) {
    let length = message.encoded_len();
    out.reserve(crate::frame::HEADER + length);
    crate::frame::put_header(kind, length, out);
    // A BytesMut grows as needed: encoding into it cannot run out of room.
    let _ = message.encode(out);
}

/// Declares the envelope of a direction and implements [`Control`] for its enum. The frames are of the given kind.
macro_rules! direction {
    ($envelope:ident, $body:ident, $path:tt, $tags:tt) => {
        $crate::control::direction!($envelope, $body, $path, $tags, $crate::frame::KIND_CONTROL);
    };
    ($envelope:ident, $body:ident, $path:tt, $tags:tt, $kind:expr) => {
        #[derive(Clone, PartialEq, prost::Message)]
        struct $envelope {
            #[prost(oneof = $path, tags = $tags)]
            body: Option<$body>,
        }

        impl $crate::Control for $body {
            fn encode_frame(self, out: &mut bytes::BytesMut) {
                $crate::control::encode_message(&$envelope { body: Some(self) }, $kind, out);
            }

            fn decode_body(body: bytes::Bytes) -> Result<Option<Self>, prost::DecodeError> {
                <$envelope as prost::Message>::decode(body).map(|e| e.body)
            }
        }
    };
}
pub(crate) use direction;
