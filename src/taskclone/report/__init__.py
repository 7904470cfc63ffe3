"""What people look at: charts and tables, drawn from stored data only."""
