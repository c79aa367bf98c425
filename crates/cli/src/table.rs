//! Text in columns.

/// Lays out rows, each column as wide as its widest cell; no line ends with spaces.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..N).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  "));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.iter().map(line).collect()
}

/// Says a number of seconds in its two largest units.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// Says a short time in seconds, in three digits.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        ..0.01 => format!("{:.1}ms", seconds * 1e3),
        ..1.0 => format!("{:.0}ms", seconds * 1e3),
        _ => format!("{seconds:.1}s"),
    }
}

/// Says the time of day, in UTC, of a time in seconds since 1970.
pub(crate) fn clock(time: f64) -> String {
    let milliseconds = (time.max(0.0) * 1e3) as u64;
    let seconds = milliseconds / 1000;
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}Z", seconds % 60, milliseconds % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let text =
            columns(&[row(["A", "LONGER", ""]), row(["größe", "b", "c"]), row(["", "", ""])]);
        assert_eq!(text, "A      LONGER\ngröße  b       c\n\n");
    }

    #[test]
    fn durations_are_said_as_people_do() {
        let said = [(0.4, "0s"), (59.9, "59s"), (61.0, "1m 1s"), (7500.0, "2h 5m"), (9e4, "1d 1h")];
        for (seconds, text) in said {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn short_times_have_a_few_digits() {
        assert_eq!([0.0025, 0.25, 12.0].map(seconds), ["2.5ms", "250ms", "12.0s"]);
        assert_eq!(clock(86_400.0 + 7_265.125), "02:01:05.125Z");
    }
}
