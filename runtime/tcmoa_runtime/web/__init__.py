"""What the HTTP servers of the project share, whatever their framework: address, access, limits and documentation."""
