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

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: u32) -> u32 {
        Draws::new(self).below(n)
    }
}

/// The draws of one answer: as many as 64 random bits are good for come from one multiplication each.
pub(super) struct Draws<'a> {
    random: &'a mut Random,
    bits: u64,
    /// The product of what was drawn from `bits`.
    used: u64,
}

impl<'a> Draws<'a> {
    pub fn new(random: &'a mut Random) -> Draws<'a> {
        Draws { random, bits: 0, used: u64::MAX }
    }

    /// Below `n`, which is not 0; see [`take`].
    pub fn below(&mut self, n: u32) -> u32 {
        self.used = self.used.saturating_mul(u64::from(n));
        if self.used > u64::from(u32::MAX) {
            self.bits = self.random.draw();
            self.used = u64::from(n);
        }
        take(&mut self.bits, n)
    }
}

/// As [`Draws`], for draws whose product is below 2³²: one multiplication gives bits for all of them, so that nothing has to be kept
/// of how many are used.
pub(super) struct FewDraws<'a> {
    /// Until the first draw, which takes it.
    random: Option<&'a mut Random>,
    bits: u64,
}

impl<'a> FewDraws<'a> {
    pub fn new(random: &'a mut Random) -> FewDraws<'a> {
        FewDraws { random: Some(random), bits: 0 }
    }

    /// Below `n`, which is not 0; see [`take`].
    #[inline(always)]
    pub fn below(&mut self, n: u32) -> u32 {
        if let Some(random) = self.random.take() {
            self.bits = random.draw();
        }
        take(&mut self.bits, n)
    }
}

/// A number below `n`, out of random bits. Lemire's multiplication, whose lower half is as random as what is left of the bits; the
/// bias is below 2⁻³², far below what answers can show.
#[inline(always)]
fn take(bits: &mut u64, n: u32) -> u32 {
    let product = u128::from(*bits) * u128::from(n);
    *bits = product as u64;
    (product >> 64) as u32
}

#[cfg(test)]
mod tests {
    use super::super::record::MOST_UNIFORM;
    use super::*;

    #[test]
    fn few_draws_are_those_of_many() {
        let (mut one, mut other) = (Random::new(9), Random::new(9));
        for _ in 0..1_000 {
            let (mut few, mut many) = (FewDraws::new(&mut one), Draws::new(&mut other));
            // The most that there is to draw for a service as most are.
            (1..=MOST_UNIFORM as u32).rev().for_each(|n| assert_eq!(few.below(n), many.below(n)));
        }
        assert_eq!(one.draw(), other.draw());
    }

    #[test]
    fn every_order_is_as_likely_as_any() {
        let mut random = Random::new(7);
        let mut seen = [0u32; 120];
        for _ in 0..120_000 {
            let mut draws = Draws::new(&mut random);
            let order = [5, 4, 3, 2].iter().fold(0, |order, &n| order * n + draws.below(n));
            seen[order as usize] += 1;
        }
        // Chi-squared with 119 degrees of freedom is above 200 once in 500,000.
        let chi: f64 = seen.iter().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 200.0, "{chi}");
    }

    #[test]
    fn long_runs_of_draws_stay_even() {
        let mut random = Random::new(8);
        let mut draws = Draws::new(&mut random);
        let mut seen = [0u32; 1000];
        for _ in 0..1_000_000 {
            seen[draws.below(1000) as usize] += 1;
        }
        // With 999 degrees of freedom: mean 999, standard deviation 45.
        let chi: f64 = seen.iter().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
        assert!((750.0..1250.0).contains(&chi), "{chi}");
    }
}
