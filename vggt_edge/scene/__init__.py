"""From many predictions to one scene, and from a scene to tracks."""
