//! The words of records as people and zone files write them (RFC 1035, section 5.1). Pure.

/// One word, or one text in quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// Without the quotes and escapes.
    pub(super) text: String,
    /// Whether it was in quotes.
    pub(super) quoted: bool,
}

/// Splits a text into words.
///
/// # Errors
/// A quote without its partner, an escape without its digits, or a byte that is no printable character of ASCII but for
/// UTF-8 letters.
pub(super) fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = word(rest)?;
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

/// The first word of a text that begins with one, and what follows.
pub(super) fn word(text: &str) -> Result<(Word, &str), String> {
    let quoted = text.starts_with('"');
    let mut rest = text.strip_prefix('"').unwrap_or(text);
    // Escapes are bytes, of which several may make one letter.
    let mut word = Vec::new();
    loop {
        let Some(next) = rest.chars().next() else {
            return if quoted {
                Err("a quote (\") is not closed".to_owned())
            } else {
                Ok((whole(word, quoted)?, rest))
            };
        };
        match next {
            '"' if quoted => return Ok((whole(word, quoted)?, &rest[1..])),
            '"' => return Ok((whole(word, quoted)?, rest)),
            ' ' | '\t' if !quoted => return Ok((whole(word, quoted)?, rest)),
            '\\' => {
                let (escaped, length) = escaped(&rest[1..])?;
                word.push(escaped);
                rest = &rest[1 + length..];
            }
            control if control.is_control() && control != '\t' => {
                return Err("control characters are not allowed".to_owned());
            }
            other => {
                word.extend_from_slice(&rest.as_bytes()[..other.len_utf8()]);
                rest = &rest[other.len_utf8()..];
            }
        }
    }
}

fn whole(word: Vec<u8>, quoted: bool) -> Result<Word, String> {
    let text =
        String::from_utf8(word).ok().filter(|text| !text.chars().any(|letter| letter.is_control() && letter != '\t'));
    text.map(|text| Word { text, quoted })
        .ok_or_else(|| "escaped bytes from 128 on have to be letters in UTF-8".to_owned())
}

/// What stands behind a backslash: a character, or three decimal digits of a byte.
fn escaped(rest: &str) -> Result<(u8, usize), String> {
    let bytes = rest.as_bytes();
    match bytes {
        [b'0'..=b'9', ..] => {
            let digits = bytes.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
            let value = digits.and_then(|_| rest[..3].parse::<u8>().ok());
            let takes = |byte: &u8| *byte == b'\t' || *byte >= b' ' && *byte != 127;
            value.filter(takes).map(|byte| (byte, 3)).ok_or_else(|| {
                "behind a backslash, three digits stand for a byte that is no control character (032 to 255)".to_owned()
            })
        }
        [byte, ..] if byte.is_ascii_graphic() || *byte == b' ' => Ok((*byte, 1)),
        _ => Err("a backslash stands before a character or three digits".to_owned()),
    }
}

/// In quotes, with what needs it escaped.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(String, bool)> {
        words(text).unwrap().into_iter().map(|word| (word.text, word.quoted)).collect()
    }

    #[test]
    fn words_are_split_and_unescaped() {
        let plain = |text: &str| (text.to_owned(), false);
        let quotes = |text: &str| (text.to_owned(), true);
        assert_eq!(split("  10 mail.example. "), [plain("10"), plain("mail.example.")]);
        assert_eq!(split(r#""\195\188" \195\188 a\009b"#), [quotes("ü"), plain("ü"), plain("a\tb")]);
        assert_eq!(split(r#""a \"b\" \092" "" c"#), [quotes(r#"a "b" \"#), quotes(""), plain("c")]);
        assert_eq!(split(r#"alpn="h2""#), [plain("alpn="), quotes("h2")]);
        for bad in ["\"open", "a\\", "a\\25", "a\\999", "a\\001", "a\\195", "a\\194\\133", "a\u{7}"] {
            assert!(words(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn quoted_text_reads_back() {
        for text in ["", "a b", r#"say "no" \ never"#, "ü"] {
            assert_eq!(split(&quoted(text)), [(text.to_owned(), true)]);
        }
    }
}
