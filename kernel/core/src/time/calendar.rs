//! Dates.
//!
//! The battery-backed clock of a PC keeps a date in the CMOS memory, in one of four encodings that its
//! status register B tells (Motorola MC146818, "Time, Calendar, and Alarm Locations").

/// Status register B: hours are 0 to 23.
const HOURS_24: u8 = 1 << 1;
/// Status register B: numbers are binary, not binary-coded decimals.
const BINARY: u8 = 1 << 2;
/// In the hours register, where hours are 1 to 12.
const PM: u8 = 1 << 7;

/// The date registers of the CMOS clock, read while it was not changing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CmosDate {
    pub seconds: u8,
    pub minutes: u8,
    pub hours: u8,
    pub day: u8,
    pub month: u8,
    /// Within the century.
    pub year: u8,
    pub status_b: u8,
}

impl CmosDate {
    /// Seconds since 1970, as Unix counts them. Years are those from 1970 to 2069. None if it is no date,
    /// as where there is no such clock.
    pub fn unix_seconds(self) -> Option<u64> {
        let number = |register: u8| {
            if self.status_b & BINARY != 0 {
                return Some(register);
            }
            let (tens, ones) = (register >> 4, register & 15);
            (tens < 10 && ones < 10).then(|| tens * 10 + ones)
        };
        let hours = if self.status_b & HOURS_24 != 0 {
            number(self.hours)?
        } else {
            let hours = number(self.hours & !PM)?;
            if !(1..=12).contains(&hours) {
                return None;
            }
            hours % 12 + if self.hours & PM != 0 { 12 } else { 0 }
        };
        let year = u64::from(number(self.year)?);
        let year = if year < 70 { 2000 + year } else { 1900 + year };
        let (month, day) = (number(self.month)?, number(self.day)?);
        let (minutes, seconds) = (number(self.minutes)?, number(self.seconds)?);
        let is_date = (1..=12).contains(&month) && (1..=31).contains(&day) && year < 2070;
        if !is_date || hours > 23 || minutes > 59 || seconds > 59 {
            return None;
        }
        let days = days_since_1970(year, u64::from(month), u64::from(day));
        let minutes = (days * 24 + u64::from(hours)) * 60 + u64::from(minutes);
        Some(minutes * 60 + u64::from(seconds))
    }
}

/// Days from 1 January 1970 to a date from then on, in the Gregorian calendar.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // Years that begin in March end with the day that leap years add.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_before_month = (153 * month + 2) / 5;
    let days_before_year = year * 365 + year / 4 - year / 100 + year / 400;
    /// The same for 1 January 1970.
    const EPOCH: u64 = 719_468;
    days_before_year + days_before_month + day - 1 - EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCD_24: CmosDate = CmosDate {
        seconds: 0x59,
        minutes: 0x34,
        hours: 0x23,
        day: 0x29,
        month: 0x02,
        year: 0x24,
        status_b: HOURS_24,
    };

    #[test]
    fn every_encoding_is_read() {
        // date -u -d '2024-02-29 23:34:59' +%s
        assert_eq!(BCD_24.unix_seconds(), Some(1_709_249_699));
        let bcd_12 = CmosDate { hours: 0x11 | PM, status_b: 0, ..BCD_24 };
        assert_eq!(bcd_12.unix_seconds(), Some(1_709_249_699));
        let midnight = CmosDate { hours: 0x12, status_b: 0, ..BCD_24 };
        assert_eq!(midnight.unix_seconds(), Some(1_709_249_699 - 23 * 3600));
        let binary = CmosDate {
            seconds: 59,
            minutes: 34,
            hours: 23,
            day: 29,
            month: 2,
            year: 24,
            status_b: HOURS_24 | BINARY,
        };
        assert_eq!(binary.unix_seconds(), Some(1_709_249_699));
    }

    #[test]
    fn the_ends_of_the_range() {
        let at = |year, month, day| {
            let midnight = CmosDate { seconds: 0, minutes: 0, hours: 0, ..BCD_24 };
            CmosDate { day, month, year, ..midnight }.unix_seconds()
        };
        assert_eq!(at(0x70, 0x01, 0x01), Some(0));
        assert_eq!(at(0x99, 0x12, 0x31), Some(946_598_400));
        assert_eq!(at(0x00, 0x03, 0x01), Some(951_868_800));
        assert_eq!(at(0x69, 0x12, 0x31), Some(3_155_673_600));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        let absent = CmosDate {
            seconds: 0xFF,
            minutes: 0xFF,
            hours: 0xFF,
            day: 0xFF,
            month: 0xFF,
            year: 0xFF,
            status_b: 0xFF,
        };
        assert_eq!(absent.unix_seconds(), None);
        assert_eq!(CmosDate { month: 0x13, ..BCD_24 }.unix_seconds(), None);
        assert_eq!(CmosDate { day: 0, ..BCD_24 }.unix_seconds(), None);
        assert_eq!(CmosDate { seconds: 0x5A, ..BCD_24 }.unix_seconds(), None);
        assert_eq!(CmosDate { hours: 0x24, ..BCD_24 }.unix_seconds(), None);
        assert_eq!(CmosDate { hours: 0, status_b: 0, ..BCD_24 }.unix_seconds(), None);
    }
}
