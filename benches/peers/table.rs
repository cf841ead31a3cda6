//! What is printed.

use crate::broker::Broker;

/// A table: the names of its figures, of which the first is compared.
pub(crate) struct Table<const N: usize> {
    pub(crate) columns: [&'static str; N],
    /// Whether a greater first figure is the better one.
    pub(crate) more_is_better: bool,
    /// Rounds of each broker in each scenario; the median counts.
    pub(crate) rounds: usize,
}

impl<const N: usize> Table<N> {
    /// The line above.
    pub(crate) fn head(&self) {
        print!("\n{:<34}{:<19}", "scenario", "broker");
        for column in self.columns {
            print!("{column:>16}");
        }
        println!("{:>10}", "ratio");
    }

    /// A line for each broker that has figures, and its ratio to the better mosquitto.
    pub(crate) fn print(&self, scenario: &str, brokers: &[Broker], rounds: &[Vec<[f64; N]>]) {
        let medians: Vec<Option<[f64; N]>> = rounds.iter().map(|rounds| medians(rounds)).collect();
        let yardsticks = brokers.iter().zip(&medians).filter(|(broker, _)| broker.is_yardstick());
        let first = yardsticks.filter_map(|(_, medians)| Some(medians.as_ref()?[0]));
        let better = |a: f64, b: f64| if self.more_is_better { a.max(b) } else { a.min(b) };
        let yardstick = first.reduce(better);
        for (broker, medians) in brokers.iter().zip(&medians) {
            let Some(medians) = medians else { continue };
            print!("{scenario:<34}{:<19}", broker.name);
            for figure in medians {
                print!("{figure:>16.2}");
            }
            match yardstick {
                Some(yardstick) if yardstick > 0.0 => println!("{:>10.2}", medians[0] / yardstick),
                _ => println!(),
            }
        }
    }
}

fn medians<const N: usize>(rounds: &[[f64; N]]) -> Option<[f64; N]> {
    let median = |at: usize| {
        let mut values: Vec<f64> = rounds.iter().map(|figures| figures[at]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    (!rounds.is_empty()).then(|| std::array::from_fn(median))
}
