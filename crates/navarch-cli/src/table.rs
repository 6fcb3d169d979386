//! Tables in the layout that `istioctl` users know: left-aligned columns, padded with blanks.

/// Blanks between columns.
const PADDING: usize = 5;

/// Lays out rows; the first one is the header. Lines carry no trailing blanks.
pub fn render(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<0$}", width + PADDING));
        let line: String = cells.collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [vec!["NAME".to_owned(), "CDS".to_owned()], vec!["a-long-name".to_owned(), "SYNCED".to_owned()]];
        assert_eq!(render(&rows), "NAME            CDS\na-long-name     SYNCED\n");
    }

    #[test]
    fn nothing_is_an_empty_table() {
        assert_eq!(render(&[]), "");
    }
}
