//! Forms with files (RFC 7578), as far as clients send them here: whole, in memory, with a name for each part. Pure.

/// One field of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) name: &'a str,
    pub(crate) content: &'a [u8],
}

/// More fields than any form of ours has.
const MAX_PARTS: usize = 32;

/// The boundary that a content type names; `None` if it is no form with files.
pub(crate) fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then_some(value.trim().trim_matches('"'))
    })?;
    // RFC 2046, section 5.1.1.
    (1..=70).contains(&value.len()).then_some(value)
}

/// The fields of a form.
///
/// # Errors
/// It is cut off, or a field has no name.
pub(crate) fn parts<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<Part<'a>>, &'static str> {
    const CUT_OFF: &str = "the form ends before its last boundary";
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    let mut rest = match body.strip_prefix(&delimiter[2..]) {
        Some(rest) => rest,
        // Something for old programs to read may stand in front.
        None => &body[find(body, &delimiter).ok_or("the form has no boundary")? + delimiter.len()..],
    };
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        let start = find(rest, b"\r\n").ok_or(CUT_OFF)?;
        // The head's first line may end the head as well.
        let head_end = find(&rest[start..], b"\r\n\r\n").ok_or(CUT_OFF)? + start;
        let content = &rest[head_end + 4..];
        let end = find(content, &delimiter).ok_or(CUT_OFF)?;
        let head = std::str::from_utf8(&rest[start..head_end]).map_err(|_| "a field's header is not text")?;
        let name = field_name(head).ok_or("a field of the form has no name")?;
        if parts.len() >= MAX_PARTS {
            return Err("the form has too many fields");
        }
        parts.push(Part { name, content: &content[..end] });
        rest = &content[end + delimiter.len()..];
    }
}

fn field_name(head: &str) -> Option<&str> {
    let disposition = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    disposition.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("name").then_some(value.trim().trim_matches('"'))
    })
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_s_fields_are_found() {
        let body = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nContent-Type: text/plain\r\n\r\n\
                    a\r\n--y\r\n\r\n--x\r\ncontent-disposition: form-data; name=proxied\r\n\r\ntrue\r\n--x--\r\n";
        let file = Part { name: "file", content: b"a\r\n--y\r\n" };
        let proxied = Part { name: "proxied", content: b"true" };
        assert_eq!(parts(body.as_bytes(), "x"), Ok(vec![file, proxied]));
        assert_eq!(parts(format!("preamble\r\n{body}").as_bytes(), "x"), Ok(vec![file, proxied]));
        assert_eq!(parts(b"--x--", "x"), Ok(vec![]));
        for end in 0..body.len() - 4 {
            assert!(parts(&body.as_bytes()[..end], "x").is_err(), "{end}");
        }
        assert!(parts(b"--x\r\na: b\r\n\r\nc\r\n--x--", "x").is_err());
    }

    #[test]
    fn the_boundary_is_in_the_content_type() {
        assert_eq!(boundary("multipart/form-data; charset=utf-8; Boundary=\"a b\""), Some("a b"));
        for other in
            ["text/plain", "multipart/mixed; boundary=a", "multipart/form-data", "multipart/form-data; boundary="]
        {
            assert_eq!(boundary(other), None);
        }
    }
}
