"""Small worlds with known physics, exact to rounding where a closed form or an order of events exists."""
