use bytes::{Buf, BytesMut};

/// A visitor's frames, however they are cut (RFC 6455 section 5.2): where one begins, and its payload without mask.
#[derive(Default)]
pub(in crate::origin) struct Masked {
    /// What has come and was not looked at yet.
    pub(in crate::origin) input: BytesMut,
    /// Payload of the frame under way that was not taken yet.
    missing: u64,
    mask: [u8; 4],
}

/// The bit of a head's second byte that says that there is a mask.
pub(in crate::origin) const MASKED: u8 = 0x80;

impl Masked {
    /// The first two bytes of a frame; `None`: more input is needed. Between frames only.
    pub(in crate::origin) fn peek(&self) -> Option<[u8; 2]> {
        self.input.first_chunk().copied()
    }

    /// Takes the head off whose second byte is this one, and answers the length of the payload; `None`: more input is needed.
    pub(in crate::origin) fn begin(&mut self, second: u8) -> Option<u64> {
        let short = second & !MASKED;
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.input.len() < 2 + extended + 4 {
            return None;
        }
        self.input.advance(2);
        self.missing = match extended {
            2 => self.input.get_u16().into(),
            8 => self.input.get_u64(),
            _ => short.into(),
        };
        self.input.copy_to_slice(&mut self.mask);
        Some(self.missing)
    }

    /// All payload of the frame under way has been taken.
    pub(in crate::origin) fn is_through(&self) -> bool {
        self.missing == 0
    }

    /// Payload of the frame under way, as far as it is there; `None`: more input is needed.
    pub(in crate::origin) fn payload(&mut self) -> Option<BytesMut> {
        let ready = usize::try_from(self.missing).unwrap_or(usize::MAX).min(self.input.len());
        if ready == 0 {
            return None;
        }
        let mut payload = self.input.split_to(ready);
        for (byte, mask) in payload.iter_mut().zip(self.mask.into_iter().cycle()) {
            *byte ^= mask;
        }
        self.mask.rotate_left(ready % 4);
        self.missing -= ready as u64;
        Some(payload)
    }
}
