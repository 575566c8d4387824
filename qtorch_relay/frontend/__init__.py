"""Op converters: the neutral graph becomes a module of qnn and relax ops."""
