"""What refnet found out, shown: tables for a terminal, records for JSON."""
