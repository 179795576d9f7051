"""What readers of raw data share: centring, oversampling, sampling patterns, prewhitening, the ISMRMRD header."""
