//! What little HTTP is needed to be asked for figures: one request a connection, of which only the first line counts.

/// Bytes that a request may have, from its first line to the empty one.
pub const LONGEST: usize = 8192;

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The figures; without them for HEAD.
    Metrics { body: bool },
    /// Something that is not here.
    NotFound,
    /// Something else than reading.
    Method,
    /// It is no request.
    Nonsense,
}

/// Whether the whole request is there.
pub fn is_whole(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|window| window == b"\r\n\r\n") || bytes.windows(2).any(|window| window == b"\n\n")
}

/// Reads a request, whatever it is.
pub fn understand(bytes: &[u8]) -> Asked {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Ok(line) = str::from_utf8(line) else { return Asked::Nonsense };
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Asked::Nonsense;
    };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return Asked::Nonsense;
    }
    let path = target.split(['?', '#']).next().unwrap_or_default();
    match (method, path) {
        ("GET", "/metrics") => Asked::Metrics { body: true },
        ("HEAD", "/metrics") => Asked::Metrics { body: false },
        ("GET" | "HEAD", _) => Asked::NotFound,
        _ => Asked::Method,
    }
}

/// The whole answer to it.
pub fn answer(asked: Asked, metrics: impl FnOnce() -> String) -> Vec<u8> {
    let (status, body) = match asked {
        Asked::Metrics { .. } => ("200 OK", metrics()),
        Asked::NotFound => ("404 Not Found", "ghostd's figures are at /metrics\n".to_owned()),
        Asked::Method => ("405 Method Not Allowed", "figures can only be read: GET /metrics\n".to_owned()),
        Asked::Nonsense => ("400 Bad Request", "this is no HTTP request: GET /metrics HTTP/1.1\n".to_owned()),
    };
    let allow = if asked == Asked::Method { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        super::CONTENT_TYPE,
        body.len()
    );
    let body = if asked == (Asked::Metrics { body: false }) { "" } else { &body };
    [head.as_bytes(), body.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reading_the_figures_is_answered_with_them() {
        let all = Asked::Metrics { body: true };
        for (request, asked) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", all),
            ("GET /metrics?a=b HTTP/1.0\n\n", all),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", Asked::Metrics { body: false }),
            ("GET / HTTP/1.1\r\n\r\n", Asked::NotFound),
            ("GET /metrics/../etc HTTP/1.1\r\n\r\n", Asked::NotFound),
            ("POST /metrics HTTP/1.1\r\n\r\n", Asked::Method),
            ("GET http://x/metrics HTTP/1.1\r\n\r\n", Asked::Nonsense),
            ("GET /metrics\r\n\r\n", Asked::Nonsense),
            ("GET /metrics HTTP/2\r\n\r\n", Asked::Nonsense),
            ("GET  /metrics HTTP/1.1\r\n\r\n", Asked::Nonsense),
            ("", Asked::Nonsense),
        ] {
            assert_eq!(understand(request.as_bytes()), asked, "{request:?}");
        }
        assert_eq!(understand(b"GET /\xff HTTP/1.1\r\n\r\n"), Asked::Nonsense);
    }

    #[test]
    fn an_answer_is_as_long_as_it_says() {
        for asked in [Asked::Metrics { body: true }, Asked::NotFound, Asked::Method, Asked::Nonsense] {
            let text = String::from_utf8(answer(asked, || "a 1\n".to_owned())).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
        }
        let text = String::from_utf8(answer(Asked::Metrics { body: false }, || "a 1\n".to_owned())).unwrap();
        assert!(text.contains("Content-Length: 4\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_understood(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = is_whole(&bytes);
            let asked = understand(&bytes);
            proptest::prop_assert!(answer(asked, String::new).starts_with(b"HTTP/1.1 "));
        }
    }
}
