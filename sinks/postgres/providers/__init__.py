"""What PostgreSQL keeps about external recognizers and models."""
