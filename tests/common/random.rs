//! Numbers that look random and are the same in every run: splitmix64.

/// A seeded sequence of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, uniform over all of `u64`.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number, below `bound`, which isn't zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Whether an event of this probability happened.
    pub fn chance(&mut self, probability: f64) -> bool {
        ((self.next() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// Bytes that no compressor makes smaller.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Words and lines that compress about as source code does.
    pub fn text(&mut self, len: usize) -> Vec<u8> {
        const WORDS: [&str; 16] = [
            "static", "int", "struct", "device", "return", "if", "buffer", "->", "(", ")", ";\n", " = ", "NULL",
            "error", "\t", "0x",
        ];
        let mut text = Vec::with_capacity(len + 32);
        while text.len() < len {
            let number = self.next();
            text.extend_from_slice(WORDS[(number % 16) as usize].as_bytes());
            text.push(b' ');
            if number.is_multiple_of(7) {
                text.extend_from_slice(format!("{:x}", number >> 40).as_bytes());
            }
        }
        text.truncate(len);
        text
    }
}
