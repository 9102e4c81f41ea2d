//! Points on the Earth and how far apart they are.

/// Mean radius (IUGG), in kilometres.
const EARTH: f64 = 6_371.0;

/// Degrees; north and east are positive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coordinates {
    latitude: f64,
    longitude: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{latitude}, {longitude} is no place on Earth: latitudes are -90 to 90, longitudes -180 to 180 degrees")]
pub struct CoordinatesError {
    latitude: f64,
    longitude: f64,
}

impl Coordinates {
    pub fn new(latitude: f64, longitude: f64) -> Result<Coordinates, CoordinatesError> {
        // A NaN is in no range.
        if (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude) {
            Ok(Coordinates { latitude, longitude })
        } else {
            Err(CoordinatesError { latitude, longitude })
        }
    }

    pub fn latitude(self) -> f64 {
        self.latitude
    }

    pub fn longitude(self) -> f64 {
        self.longitude
    }

    /// Along the great circle, in whole kilometres (haversine formula).
    pub fn kilometers_to(self, other: Coordinates) -> u32 {
        let (here, there) = (self.latitude.to_radians(), other.latitude.to_radians());
        let north = (there - here) / 2.0;
        let east = (other.longitude - self.longitude).to_radians() / 2.0;
        let square = north.sin().powi(2) + here.cos() * there.cos() * east.sin().powi(2);
        // At most half of the circumference, 20,015 km.
        (2.0 * EARTH * square.sqrt().min(1.0).asin()).round() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(latitude: f64, longitude: f64) -> Coordinates {
        Coordinates::new(latitude, longitude).unwrap()
    }

    #[test]
    fn distances() {
        let (new_york, london, tokyo) = (at(40.71, -74.01), at(51.51, -0.13), at(35.68, 139.69));
        for (one, other, expected) in [
            (new_york, new_york, 0),
            (new_york, london, 5_570),
            (new_york, tokyo, 10_850),
            (london, tokyo, 9_560),
            (at(0.0, 179.5), at(0.0, -179.5), 111),
            (at(90.0, 0.0), at(90.0, 120.0), 0),
            (at(0.0, 0.0), at(0.0, 180.0), 20_015),
            (at(90.0, 0.0), at(-90.0, 0.0), 20_015),
        ] {
            let kilometers = one.kilometers_to(other);
            assert_eq!(kilometers, other.kilometers_to(one));
            assert!(kilometers.abs_diff(expected) <= 10, "{one:?} {other:?}: {kilometers}, not {expected}");
        }
    }

    #[test]
    fn only_what_is_on_earth() {
        for (latitude, longitude) in [(-90.0, -180.0), (90.0, 180.0), (0.0, 0.0)] {
            assert!(Coordinates::new(latitude, longitude).is_ok());
        }
        for (latitude, longitude) in [(90.1, 0.0), (-91.0, 0.0), (0.0, 180.5), (f64::NAN, 0.0), (0.0, f64::INFINITY)] {
            assert!(Coordinates::new(latitude, longitude).is_err());
        }
    }
}
