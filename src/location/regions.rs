//! Where the regions of public clouds are.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::Coordinates;

/// One region a line, see the head of the file.
const REGIONS: &str = include_str!("regions.csv");

static COORDINATES: LazyLock<HashMap<&'static str, Coordinates>> = LazyLock::new(|| rows().collect());

/// Those of a region by its provider's name for it, which is what nodes have in `topology.kubernetes.io/region`.
pub fn coordinates(region: &str) -> Option<Coordinates> {
    COORDINATES.get(region).copied()
}

fn rows() -> impl Iterator<Item = (&'static str, Coordinates)> {
    let lines = REGIONS.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let mut fields = line.split(',');
        let name = fields.next().unwrap_or_default();
        let mut degrees = || fields.next().and_then(|field| field.parse().ok()).unwrap_or(f64::NAN);
        let coordinates = Coordinates::new(degrees(), degrees());
        (name, coordinates.expect("the file is a part of the program, and a test reads all of it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_region_once_and_in_order() {
        let names: Vec<&str> = rows().map(|(name, _)| name).collect();
        assert!(names.len() > 150 && names.is_sorted_by(|a, b| a < b));
        let line = |name: &&str| crate::model::Region((*name).into()).0.len() <= 63 && !name.is_empty();
        assert!(names.iter().all(line));
    }

    #[test]
    fn regions_are_where_they_should_be() {
        let kilometers = |a, b| coordinates(a).unwrap().kilometers_to(coordinates(b).unwrap());
        for (one, other, least, most) in [
            ("us-east-1", "us-east4", 0, 0),
            ("us-east-1", "eastus", 100, 400),
            ("eu-west-1", "northeurope", 0, 0),
            ("eu-central-1", "europe-west3", 0, 0),
            ("us-east-1", "ap-northeast-1", 10_500, 11_300),
            ("eu-west-2", "us-east-1", 5_700, 6_100),
            ("ap-southeast-2", "australiaeast", 0, 0),
            ("sa-east-1", "us-east-1", 7_400, 7_900),
        ] {
            let far = kilometers(one, other);
            assert!((least..=most).contains(&far), "{one} {other}: {far} km");
        }
        assert_eq!(coordinates("the-moon"), None);
    }
}
