package petclinic;

import org.springframework.data.repository.CrudRepository;

interface Pets extends CrudRepository<Pet, String> {}
