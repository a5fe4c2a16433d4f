"""Operations on whole sessions: listing, editing, cleaning up and erasing them."""
