"""What frame logs tell: figures, a page for people, pictures, and the planner's advice."""
