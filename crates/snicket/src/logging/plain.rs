use std::cell::RefCell;
use std::fmt::{self, Debug, Write};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Text without colours, as `tracing_subscriber`'s own (`Full`) has it, but made with a fifth of the work: every request is told
/// at the edge and at the agent. We open no spans, and it shows none.
pub(super) struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write_time(&mut writer, Timestamp::now())?;
        writer.write_str(match *event.metadata().level() {
            Level::TRACE => " TRACE",
            Level::DEBUG => " DEBUG",
            Level::INFO => "  INFO",
            Level::WARN => "  WARN",
            Level::ERROR => " ERROR",
        })?;
        let mut fields = Fields { out: Escaped(&mut writer), result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        writer.write_char('\n')
    }
}

/// A second, and how it is written.
type Second = (i64, String);

thread_local! {
    /// The one that this thread wrote last; a busy one writes it often.
    static LAST: RefCell<Second> = const { RefCell::new((i64::MIN, String::new())) };
}

fn write_time(out: &mut impl Write, time: Timestamp) -> fmt::Result {
    LAST.with_borrow_mut(|(second, text)| {
        if *second != time.as_second() {
            *second = time.as_second();
            *text = time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        out.write_str(text)
    })?;
    write!(out, ".{:06}Z", time.subsec_microsecond())
}

/// Writes fields one after the other, each after a space.
struct Fields<W> {
    out: Escaped<W>,
    result: fmt::Result,
}

impl<W: Write> Fields<W> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut Escaped<W>) -> fmt::Result) {
        if self.result.is_ok() {
            self.result = self.write_name(field.name()).and_then(|()| value(&mut self.out));
        }
    }

    fn write_name(&mut self, name: &str) -> fmt::Result {
        self.out.0.write_char(' ')?;
        if name == "message" {
            return Ok(());
        }
        self.out.0.write_str(name.strip_prefix("r#").unwrap_or(name))?;
        self.out.0.write_char('=')
    }
}

impl<W: Write> Visit for Fields<W> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, |out| {
            if field.name() == "message" {
                out.write_str(value)
            } else if value.bytes().all(|byte| is_plain(byte) && !matches!(byte, b'"' | b'\\')) {
                out.0.write_char('"')?;
                out.0.write_str(value)?;
                out.0.write_char('"')
            } else {
                write!(out, "{value:?}")
            }
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, |out| write!(out, "{value:?}"));
    }
}

/// Takes the power from what a terminal would obey.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(is_plain) {
            return self.0.write_str(text);
        }
        for character in text.chars() {
            match character {
                // A line feed would begin a line of its own.
                '\0'..='\x08' | '\n'..='\x1f' | '\x7f' => write!(self.0, "\\x{:02x}", u32::from(character))?,
                '\u{80}'..='\u{9f}' => write!(self.0, "\\u{{{:x}}}", u32::from(character))?,
                _ => self.0.write_char(character)?,
            }
        }
        Ok(())
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn say() {
        tracing::info!(
            ray = "0123-LAB",
            method = %http::Method::GET,
            status = 200_u16,
            code = Some(1033_u16),
            detail = None::<String>,
            "request"
        );
        tracing::error!(text = "quotes \" \\ and\n\x1b[1mlines\u{85}", r#type = ?Some(1), share = 0.5, done = true, "it {}", 1);
        tracing::warn!("evil \x1b[31m \u{9b} é 猫\x07\x08\x0c\x7f\t.");
        tracing::info!(only = -1);
    }

    /// The text without the time.
    fn said(make: impl FnOnce(Sink) -> tracing::Dispatch) -> Vec<String> {
        let sink = Sink::default();
        tracing::dispatcher::with_default(&make(sink.clone()), say);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        text.split_inclusive(".\n")
            .flat_map(str::lines)
            .map(|line| line.split_once("Z ").map_or(line, |cut| cut.1).into())
            .collect()
    }

    #[test]
    fn it_is_the_librarys_text() {
        let builder = || tracing_subscriber::fmt().with_target(false).with_ansi(false);
        let ours = said(|sink| builder().event_format(Plain).with_writer(Mutex::new(sink)).finish().into());
        let librarys = said(|sink| builder().with_writer(Mutex::new(sink)).finish().into());
        assert_eq!(ours, librarys);
        assert_eq!(ours[0], r#" INFO request ray="0123-LAB" method=GET status=200 code=1033"#);
    }

    #[test]
    fn times_are_those_of_their_second() {
        for (time, text) in [
            ("2026-11-21T18:52:30Z", "2026-11-21T18:52:30.000000Z"),
            ("2026-11-21T18:52:30.000001999Z", "2026-11-21T18:52:30.000001Z"),
            ("2026-11-21T18:52:31.5Z", "2026-11-21T18:52:31.500000Z"),
        ] {
            let mut written = String::new();
            write_time(&mut written, time.parse().unwrap()).unwrap();
            assert_eq!(written, text);
        }
    }
}
