//! What one more row costs a pass, measured as passes go by: a line of milliseconds over rows, through the last of them.

/// Weight of older passes against the newest: the last fifty or so count, in which a context grows little.
const MEMORY: f64 = 0.98;
/// What a row costs of a pass of one row, until there are measurements: between 0.1, where reading weights takes the time,
/// and 1, where arithmetic does.
const ASSUMED: f64 = 0.35;
/// Rows squared that the assumption is worth against measurements.
const ASSUMED_WEIGHT: f64 = 0.1;
/// A row costs something, whatever a few measurements say.
const LEAST: f64 = 0.02;
/// A pass that took so many times the mean was held up by something else.
const OUTLIER: f64 = 3.0;

/// Sums over passes without prompts.
#[derive(Debug, Default)]
pub(super) struct Costs {
    weight: f64,
    rows: f64,
    ms: f64,
    rows_squared: f64,
    rows_ms: f64,
}

impl Costs {
    /// A pass of so many rows took so long.
    pub fn observe(&mut self, rows: usize, ms: f64) {
        let (rows, mean) = (rows as f64, self.ms / self.weight);
        let ms = if mean > 0.0 { ms.min(OUTLIER * mean) } else { ms };
        let sums = [&mut self.weight, &mut self.rows, &mut self.ms, &mut self.rows_squared, &mut self.rows_ms];
        for (sum, x) in sums.into_iter().zip([1.0, rows, ms, rows * rows, rows * ms]) {
            *sum = *sum * MEMORY + x;
        }
    }

    /// What one more row would cost all `replies` in a pass of so many `rows`, as a share of what a token costs one of
    /// them: below that chance, a guess delays the others by more than it saves its own. `ms` is what making the guess takes.
    pub fn price(&self, replies: usize, rows: usize, ms: f64) -> f64 {
        let (one, row) = self.line();
        let pass = one + row * (rows as f64 - 1.0);
        (replies as f64 * (row + ms) / pass).min(1.0)
    }

    /// Milliseconds of a pass of one row, and of each further row; where there is no clock, in units of the former.
    fn line(&self) -> (f64, f64) {
        if self.ms <= 0.0 {
            return (1.0, ASSUMED);
        }
        let (rows, ms) = (self.rows / self.weight, self.ms / self.weight);
        let variance = self.rows_squared / self.weight - rows * rows;
        let covariance = self.rows_ms / self.weight - rows * ms;
        let assumed = ASSUMED * ms / (1.0 + ASSUMED * (rows - 1.0));
        let slope = (covariance + ASSUMED_WEIGHT * assumed) / (variance + ASSUMED_WEIGHT);
        // No pass is for nothing, nor is a row.
        let row = slope.clamp(LEAST * ms / rows, ms / rows);
        (ms - row * (rows - 1.0), row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The price of a row after passes that take `one` and `row` ms for each further one.
    fn price(passes: &[usize], (one, row): (f64, f64), replies: usize) -> f64 {
        let mut costs = Costs::default();
        passes.iter().cycle().take(400).for_each(|&rows| costs.observe(rows, one + row * (rows as f64 - 1.0)));
        costs.price(replies, replies, 0.0)
    }

    #[test]
    fn a_line_is_found_in_passes_of_different_length() {
        assert!((price(&[1, 1, 1, 9], (100.0, 12.0), 1) - 0.12).abs() < 0.01);
        assert!((price(&[1, 5], (4.0, 2.0), 1) - 0.5).abs() < 0.02);
        // 8 × 12 of 100 + 7 × 12.
        assert!((price(&[8, 12], (100.0, 12.0), 8) - 0.52).abs() < 0.02);
        assert!(price(&[1, 9], (5.0, 5.0), 1) > 0.9 && price(&[1, 9], (5.0, 0.0), 1) < 0.05);
    }

    #[test]
    fn without_measurements_or_a_clock_it_is_assumed() {
        assert_eq!(Costs::default().price(1, 1, 0.0), ASSUMED);
        assert_eq!(price(&[1, 2], (0.0, 0.0), 1), ASSUMED);
        assert!((price(&[1], (9.0, 1.0), 1) - ASSUMED).abs() < 1e-9);
    }

    #[test]
    fn a_pass_that_was_held_up_counts_for_little() {
        let mut costs = Costs::default();
        (0..100).for_each(|i| costs.observe(1 + i % 2 * 4, 10.0 + f64::from(i as u32 % 2 * 4)));
        costs.observe(5, 10_000.0);
        assert!(costs.price(1, 1, 0.0) < 0.25);
    }
}
