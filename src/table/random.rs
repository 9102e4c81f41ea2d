//! The generator behind the order of answers: fast, one per worker, seeded from outside. It need not be secret: whoever
//! sees the answers sees the order.

/// wyrand (Wang Yi, public domain): one multiplication for 64 bits.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 evenly distributed bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0xA076_1D64_78BD_642F);
        let product = u128::from(self.0) * u128::from(self.0 ^ 0xE703_7ED1_A0B4_28DB);
        (product >> 64) as u64 ^ product as u64
    }

    /// Below `n`, which is not 0. Lemire's multiplication; its bias of n / 2³² is far below what an answer can show.
    pub fn below(&mut self, n: u32) -> u32 {
        (((self.draw() >> 32) * u64::from(n)) >> 32) as u32
    }
}
